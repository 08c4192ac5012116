"""Pages and plots made from run directories."""
