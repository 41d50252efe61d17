"""The streaming run: films in, predictions and maps out, in batches, resumable at any moment.

The way of a film, from a file on disk to a row in results.h5, and what carries it:

1. `find` walks the inputs and yields an :class:`~cxrx.reading.item.Item` for each file or archive member that a reader
   recognises; the run lists them (:mod:`cxrx.engine.films`) and leaves out what is done (:mod:`cxrx.engine.ledger`).
2. In a decode process the reader turns the item into one or several :class:`~cxrx.specs.Film`, pixels at full size.
3. Each becomes a :class:`~cxrx.reading.prepare.Prepared`: pixels on the model's input grid, the affine back to the
   source, and
4. an :class:`~cxrx.reading.record.ImageRecord`, all that is known of the film, its place in the private link. From
   here on it is handed on as it is; tables beside the films may fill in view and patient (:mod:`cxrx.engine.filter`).
5. A batch of them goes through the model and the methods (:mod:`cxrx.engine.batch`). The report
   (:mod:`cxrx.engine.report`) collects records and numbers, a few films at a time, as a
   :class:`~cxrx.results.contents.Contents` of
6. :class:`~cxrx.results.records.Block` (columns of one model or method), which is written as one immutable part.
7. At the end all parts and the old file, read back as `Contents`, are put together: a
   :class:`~cxrx.results.plan.Layout` says which row of which block goes where, and the new file is written.
"""
