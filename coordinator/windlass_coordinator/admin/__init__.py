"""What an operator does to a coordinator's data: back up, restore, look for damage; one file per verb."""
