"""Object stores, through one client with bounded retries and verified bytes; imports no step."""
