"""What is wrong with a node's networks, in plain words, and which command repairs it.

`facts`, `state` and `system` read the node; `networks`, `host`, `leftovers`, `nftables` and `iptables`
compare what they read; `report` prints and repairs. Only `report.repair` changes anything.
"""
