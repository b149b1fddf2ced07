"""The HTML report of a run.

page: the page: summary, settings, rows, groups; its templates and assets are beside it.
pictures: thumbnails and reduced photos as JPEG.
"""
