"""What shipped tasks are made with: image filters as graphs, training, export, quantisation, downloads."""
