"""flanneld: the node daemon that joins the pods of different nodes, a drop-in for Go's flanneld v0.28.

It leases a subnet for its node and publishes how the node is reached (lease.py, manager.py), works out what
the kernel must hold for everybody else's leases (backend/, traffic/: pure), keeps the kernel at that
(reconcile.py), and tells the CNI plugins through subnet.env (subnetfile.py). main.py joins the parts.
"""
