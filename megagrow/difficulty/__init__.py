"""How hard a document is: scorers behind one interface, fitting and distilling them."""
