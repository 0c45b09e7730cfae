"""The one definition of every plugin's configuration, as pydantic models.

`build/compile_config.py` turns the models' core schemas into `compiled.py`, plain data that
`cni_plugins.spec.schema` reads on the hot path; `conflist` lints with the models themselves, and the docs are
written from them. A key is described here and nowhere else.
"""
