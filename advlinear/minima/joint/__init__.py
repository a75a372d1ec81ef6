"""The least robust loss of K > 2 classes that are trained together."""
