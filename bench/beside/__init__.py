"""The cases of the benchmark ``neighbours``: what a batch does to everybody beside it.

``case`` has what they share.  The others have the cases, numbered as in ``neighbours.py``:
``slow`` 1 and 2, ``shared`` 3 and 4, ``held`` 5, ``put_off`` 6, ``waiting`` 7, ``places`` 8,
``scaling`` 9.
"""
