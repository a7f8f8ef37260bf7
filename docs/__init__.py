"""Guide pages, and the program that runs their examples."""
