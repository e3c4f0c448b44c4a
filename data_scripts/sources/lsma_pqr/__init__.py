"""LSMA-PQR: slices of the Mendeley patients with masks, grades and disc heights."""
