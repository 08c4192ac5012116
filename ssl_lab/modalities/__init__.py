"""Kinds of data: one file per modality, with the :class:`~ssl_lab.types.Spec` of its data sets."""
