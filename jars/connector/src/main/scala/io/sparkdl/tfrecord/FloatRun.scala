package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.InternalRow

/**
 * Columns of one float each that stand side by side, as wide tables have many. All bytes of their entries but the
 * values are the same in every record, so they are written by one copy and recognised by one comparison.
 *
 * @param columns the columns
 * @param first index of the first of them among all columns
 */
private[tfrecord] final class FloatRun(val columns: IndexedSeq[FeatureColumn], val first: Int) {
  import FloatRun._

  /** Number of columns. */
  val count: Int = columns.length

  private val entries = columns.map(entryOf)
  private val image = entries.flatten.toArray

  /** Bytes of all the entries. */
  val length: Int = image.length

  // of each column: where its value begins, after the start of the run
  private val valueOffsets = entries.scanLeft(0)(_ + _.length).tail.map(_ - ValueBytes).toArray
  private val mask = entries.flatMap(e => Seq.fill[Byte](e.length - ValueBytes)(-1) ++ Seq.fill[Byte](ValueBytes)(0)).toArray

  /** Where the value of column number `index` of the run lies. */
  def valueAt(index: Int, start: Int): Int = start + valueOffsets(index)

  /** Refuses nulls and returns the length. */
  def size(row: InternalRow): Long = {
    if (row.anyNull) {
      var i = 0
      while (i < count) {
        NullCheck.scalar(columns(i), row, first + i)
        i += 1
      }
    }
    length.toLong
  }

  /** Writes the entries and returns the position after them. */
  def put(row: InternalRow, out: Array[Byte], at: Int): Int = {
    System.arraycopy(image, 0, out, at, length)
    var i = 0
    while (i < count) {
      LittleEndian.putInt(bits(row, i), out, at + valueOffsets(i))
      i += 1
    }
    at + length
  }

  /** The value of column number `index` of the run. */
  def bits(row: InternalRow, index: Int): Int = java.lang.Float.floatToRawIntBits(row.getFloat(first + index))

  /** Whether the entries lie at `start`, whatever their values; `limit` is where the record ends. */
  def isAt(bytes: Array[Byte], start: Int, limit: Int): Boolean =
    length <= limit - start && LittleEndian.areEqual(image, bytes, start, mask)
}

private[tfrecord] object FloatRun {
  private final val ValueBytes = 4

  /** The runs of at least two columns among `columns`. */
  def of(columns: IndexedSeq[FeatureColumn]): Seq[FloatRun] = {
    val runs = Seq.newBuilder[FloatRun]
    var from = 0
    while (from < columns.length) {
      val after = columns.indexWhere(column => !isScalarFloat(column), from)
      val until = if (after < 0) columns.length else after
      if (until - from > 1) runs += new FloatRun(columns.slice(from, until), from)
      from = until + 1
    }
    runs.result()
  }

  /** Something for each run and for each column that is in none, in the order of the columns. */
  def cover[A](columns: IndexedSeq[FeatureColumn])(one: Int => A, several: FloatRun => A): Seq[A] = {
    val runs = of(columns)
    val inRun = runs.flatMap(run => run.first until run.first + run.count).toSet
    val alone = columns.indices.filterNot(inRun).map(index => index -> one(index))
    (alone ++ runs.map(run => run.first -> several(run))).sortBy(_._1).map(_._2)
  }

  def isScalarFloat(column: FeatureColumn): Boolean = column.element == ElementType.Float32 && !column.isArray

  /** The entry of a column with the value 0. */
  private def entryOf(column: FeatureColumn): Array[Byte] = {
    val prefix = new EntryPrefix(column)
    prefix.resize(ValueBytes)
    prefix.bytes.take(prefix.length) ++ new Array[Byte](ValueBytes)
  }
}
