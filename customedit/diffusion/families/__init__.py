"""Families of bases: the few questions in which bases differ, answered once for each.

``base``, ``engine``, the methods, the jobs and the file formats name no family. A family is

* a ``layout.Layout``: which parts a folder has and what their configurations must be (no torch);
  the known ones are listed in ``known.LAYOUTS``;
* a ``family.Family``: how prompts become what rows read, how the denoiser is called with rows, what
  a concept changes, which schedule there is.

To add one, write both and add the layout to the list. What a family cannot do it names in
``Family.lacks``; such a request is refused when it is planned.
"""
