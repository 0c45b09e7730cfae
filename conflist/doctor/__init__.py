"""What is wrong with a node's networks, in plain words, and which command repairs it.

`facts` and `host` read the node, `attachments`, `networks` and `leftovers` compare what they read, `report`
prints and repairs. Nothing is changed but by `report.repair`.
"""
