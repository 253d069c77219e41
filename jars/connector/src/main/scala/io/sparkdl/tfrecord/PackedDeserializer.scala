package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.expressions.UnsafeRow
import org.apache.spark.sql.catalyst.expressions.codegen.UnsafeRowWriter

/** Turns packs (see [[PackedSerializer]]) into rows again. The row is reused. */
private[tfrecord] final class PackedDeserializer(
    columns: IndexedSeq[FeatureColumn],
    required: IndexedSeq[FeatureColumn])
    extends RecordDeserializer {

  private val row = new UnsafeRowWriter(required.length)

  // Where no column is wanted, the one that is cheapest to count says how many rows there are.
  private val counted = if (required.nonEmpty) required else columns.sortBy(PackedDeserializer.costOfCounting).take(1)
  private val located = counted ++ counted.flatMap(_.rowSplits)
  private val features = new FeatureLocator(columns.flatMap(column => column +: column.rowSplits.toSeq), located)
  private val slices = counted.zipWithIndex.map { case (column, slot) =>
    val splitsSlot = column.rowSplits.map(splits => located.indexOf(splits)).getOrElse(-1)
    new ColumnSlices(column, slot, splitsSlot, features, new Decoding(column, slot))
  }.toArray

  private var left = 0

  /** Decoders write into the row only where the column is wanted. */
  private final class Decoding(column: FeatureColumn, slot: Int) {
    val decoder: ListDecoder = ListDecoder(column, slot, if (required.isEmpty) new UnsafeRowWriter(1) else row)
  }

  override def start(bytes: Array[Byte], start: Int, length: Int): Unit = {
    left = 0
    features.locate(bytes, start, length)
    val rows = slices.head.open()
    var i = 1
    while (i < slices.length) {
      val others = slices(i).open()
      if (others != rows) {
        throw new BadRecord(
          s"${slices(i).column} has the values of $others rows, ${slices.head.column} those of $rows")
      }
      i += 1
    }
    left = rows
  }

  override def hasNext: Boolean = left > 0

  override def next(): UnsafeRow = {
    left -= 1
    row.reset()
    row.zeroOutNullBytes()
    if (required.nonEmpty) {
      var i = 0
      while (i < slices.length) {
        slices(i).decodeNext()
        i += 1
      }
    }
    row.getRow
  }

  /** The values of one column, cut into rows. */
  private final class ColumnSlices(
      val column: FeatureColumn,
      slot: Int,
      splitsSlot: Int,
      features: FeatureLocator,
      decoding: Decoding) {

    private val decoder = decoding.decoder
    private val cursor = features.cursor
    private val isBytes = column.element.list == ListKind.BytesList
    private val isFloats = column.element.list == ListKind.FloatList
    private val perRow = column.length.getOrElse(1)
    private var position = 0 // of the next row's values
    private var end = 0
    private var splits = Array.emptyLongArray
    private var rowIndex = 0

    /** @return rows that the record has by this column */
    def open(): Int = {
      rowIndex = 0
      val numValues = openValues()
      if (splitsSlot >= 0) openSplits(numValues)
      else if (numValues % perRow != 0) {
        throw new BadRecord(s"$column needs $perRow values a row, the record has $numValues in all")
      } else numValues / perRow
    }

    def decodeNext(): Unit = {
      val numValues = if (splitsSlot >= 0) (splits(rowIndex + 1) - splits(rowIndex)).toInt else perRow
      rowIndex += 1
      val from = position
      if (isFloats) {
        position = from + 4 * numValues
        decoder.decodeField(cursor, from, position)
      } else if (isBytes) {
        skipFields(numValues)
        if (column.isArray) decoder.decodeList(cursor, from, position)
        else decoder.decodeField(cursor, fieldStart, position)
      } else {
        skipVarints(numValues)
        decoder.decodeField(cursor, from, position)
      }
    }

    private var fieldStart = 0 // of the content of the field that was skipped last

    private def skipFields(count: Int): Unit = {
      cursor.position = position
      var i = 0
      while (i < count) {
        val tag = cursor.readTag(end)
        if (tag == Wire.Delimited1) {
          val to = cursor.readEnd(end)
          fieldStart = cursor.position
          cursor.position = to
          i += 1
        } else {
          cursor.skip(tag, end)
        }
      }
      position = cursor.position
    }

    private def skipVarints(count: Int): Unit = {
      val bytes = cursor.bytes
      var at = position
      var i = 0
      while (i < count) {
        while (bytes(at) < 0) at += 1
        at += 1
        i += 1
      }
      position = at
    }

    /** Finds the values and counts them; that they are whole is proved here, once. */
    private def openValues(): Int = {
      val (from, to) = fieldOf(slot, column)
      position = from
      end = to
      if (isBytes) decoder.countList(cursor, from, to)
      else {
        if (!isFloats && to > from && cursor.bytes(to - 1) < 0) throw new BadRecord("a protobuf number is cut off")
        decoder.countOf(cursor, from, to)
      }
    }

    /** Of numbers: where their one packed field lies; of bytes: their list. */
    private def fieldOf(slot: Int, column: FeatureColumn): (Int, Int) = {
      val (from, to) = (features.starts(slot), features.ends(slot))
      val list = column.element.list
      features.kinds(slot) match {
        // bytes of a layout that was seen before: one value, its content
        case FeatureLocator.OneField if list == ListKind.BytesList => (from - Wire.delimitedHeaderSize(to - from), to)
        case FeatureLocator.OneField => (from, to)
        case FeatureLocator.Missing => throw new BadRecord(s"$column is not in the record")
        case FeatureLocator.NoList => (to, to)
        case kind if kind != list.fieldNumber =>
          throw new BadRecord(s"$column needs ${list.name}, the record has ${ListKind.nameOf(kind)}")
        case _ if list == ListKind.BytesList || from == to => (from, to)
        case _ =>
          cursor.position = from
          if (cursor.readTag(to) != Wire.Delimited1 || cursor.readEnd(to) != to) {
            throw new BadRecord(s"$column: the numbers of a pack must be one packed field")
          }
          (cursor.position, to)
      }
    }

    private def openSplits(numValues: Int): Int = {
      val feature = located(splitsSlot)
      val (from, to) = fieldOf(splitsSlot, feature)
      cursor.position = from
      var count = 0
      while (cursor.position < to) {
        if (count == splits.length) splits = java.util.Arrays.copyOf(splits, math.max(64, 2 * count))
        splits(count) = cursor.readVarint(to)
        val isGood = if (count == 0) splits(0) == 0 else splits(count) >= splits(count - 1) && splits(count) <= numValues
        if (!isGood) throw new BadRecord(s"$feature does not rise from 0 to $numValues")
        count += 1
      }
      if (count == 0 || splits(count - 1) != numValues) {
        throw new BadRecord(s"$feature does not end at $numValues, the number of values of $column")
      }
      count - 1
    }
  }
}

private[tfrecord] object PackedDeserializer {
  private def costOfCounting(column: FeatureColumn): Int = column.element.list match {
    case ListKind.FloatList if column.rowSplits.isEmpty => 0
    case ListKind.Int64List if !column.isArray => 1
    case ListKind.BytesList if !column.isArray => 2
    case _ => 3
  }
}
