"""Labels that machines make: decoding, the store, selection, and the self-ensemble that doubts them."""
