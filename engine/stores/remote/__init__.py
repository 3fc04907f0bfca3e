"""A datastore in an object store, with a directory beside it that serves as its cache.

The directory has the layout of a local datastore, and tasks and readers see nothing else. What it
gains is uploaded (shipper.py); what it lacks is fetched (replica.py). The truth is what is remote.
"""
