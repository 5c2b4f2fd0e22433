"""Forget requests, from receipt to certificate.

`submit` takes one in, `approve` and `decisions` decide about it, `states` carries it on as jobs tell, `reads`
shows it, `due` keeps its dates.
"""
