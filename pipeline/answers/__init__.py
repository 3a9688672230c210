"""What a finished classifier says of new images: tables of labels, and scores where the labels are known."""
