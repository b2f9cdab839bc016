"""From a user's own files, or well-known downloads, to RecBole's atomic files. Imports neither torch nor RecBole.

The package ``data`` repairs RecBole when it is imported, which takes seconds; so this is a package of its own.
"""
