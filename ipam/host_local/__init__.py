"""host-local: addresses from ranges, kept in files on the host, in the reference plugin's own format."""
