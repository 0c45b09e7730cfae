"""The daemon of the dhcp plugin: gets leases, renews them, gives them back.

Ordinary Python: it is started once on a node, and no pod waits for its start. It is one process with one
thread; what waits is a coroutine. A lease has a socket in its container only while it talks to a server.
"""
