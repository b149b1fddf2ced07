"""Photos: found, read and decoded.

find: photos in folders, lists, archives and behind URLs, or at a record's root and path
decode: encoded photos to upright 8-bit sRGB pixels
memory: images given as bytes, Pillow images or arrays
stores: files on this machine and behind URLs
archives: members of archives, their names and bytes
tar, recordio, parquet, video: archives of these formats
"""
