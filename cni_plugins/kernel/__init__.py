"""The only code that touches the system: netlink, namespaces, sysctls, files, external programs.

A refusal of the kernel leaves here as an OSError, with a note that says what was being done; `spec.skel` is
the seam where it becomes a CNI error.
"""
