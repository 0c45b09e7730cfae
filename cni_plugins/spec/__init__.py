"""The protocol (CNI 1.1.0): requests, results, errors, delegation. Nothing here talks to the kernel."""
