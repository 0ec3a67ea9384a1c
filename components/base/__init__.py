"""The model that training starts from, whatever `model.init` names."""
