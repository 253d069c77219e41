package io.sparkdl.tfrecord

import java.util.Arrays

import scala.collection.mutable

import org.apache.spark.unsafe.types.UTF8String

/**
 * Finds the lists of the required columns in the bytes of a `tf.train.Example` and skips its other features. It
 * remembers how the entries of one record were laid out, to recognise those of the next.
 *
 * @param columns all that a record is expected to hold, in the order in which they were written
 * @param required those to be found
 * @param keepRuns whether a run of floats that are all required, side by side, is told as one (`OfRun`)
 */
private[tfrecord] final class FeatureLocator(
    columns: IndexedSeq[FeatureColumn],
    required: IndexedSeq[FeatureColumn],
    keepRuns: Boolean = false) {
  import FeatureLocator._

  private val columnKeys = columns.map(_.key).toArray
  private val keys = mutable.HashMap(columnKeys.toSeq.map(key => UTF8String.fromBytes(key)).zipWithIndex: _*)
  private val layouts = Array.fill(columns.length)(new EntryLayout)
  private val slots = {
    val slotOf = required.map(_.name).zipWithIndex.toMap
    columns.map(column => slotOf.getOrElse(column.name, NotRequired)).toArray
  }

  private val runs = {
    val found = FloatRun.of(columns)
    columns.indices.map(index => found.find(_.first == index).orNull).toArray
  }

  /** Of the slot of a run's first column: the run, if it is told as one. */
  val wholeRuns: Array[FloatRun] = {
    val found = new Array[FloatRun](required.length)
    for (run <- runs if run != null && keepRuns; slot = slots(run.first) if slot != NotRequired) {
      if ((0 until run.count).forall(i => slots(run.first + i) == slot + i)) found(slot) = run
    }
    found
  }

  /** Over the bytes of the record. */
  val cursor = new WireCursor
  private var expected = 0 // index of the column that should come next

  // Of each required column: a field number of ListKind or one of the kinds below, and where its list or field lies.
  val kinds = new Array[Int](required.length)
  val starts = new Array[Int](required.length)
  val ends = new Array[Int](required.length)

  def locate(bytes: Array[Byte], start: Int, length: Int): Unit = {
    cursor.bytes = bytes
    cursor.position = start
    expected = 0
    Arrays.fill(kinds, Missing)
    if (required.nonEmpty) locateInExample(start + length)
  }

  private def locateInExample(end: Int): Unit =
    while (cursor.position < end) {
      val tag = cursor.readTag(end)
      if (tag == Wire.Delimited1) locateInFeatures(cursor.readEnd(end)) else cursor.skip(tag, end)
    }

  private def locateInFeatures(end: Int): Unit =
    while (cursor.position < end) {
      if (!locateRun(end) && !locateAsBefore(end)) {
        val start = cursor.position
        val tag = cursor.readTag(end)
        if (tag == Wire.Delimited1) locateInEntry(start, cursor.readEnd(end)) else cursor.skip(tag, end)
      }
    }

  /** Locates the entries of floats that stand side by side, as the connector writes them. */
  private def locateRun(end: Int): Boolean = {
    val run = if (expected < runs.length) runs(expected) else null
    val start = cursor.position
    val isRun = run != null && run.isAt(cursor.bytes, start, end)
    if (isRun) {
      val first = slots(expected)
      if (first != NotRequired && wholeRuns(first) == run) setRun(first, run, start)
      else {
        var i = 0
        while (i < run.count) {
          val slot = slots(expected + i)
          val value = run.valueAt(i, start)
          if (slot != NotRequired) setOnce(slot, OneField, value, value + 4)
          i += 1
        }
      }
      cursor.position = start + run.length
      expected += run.count
    }
    isRun
  }

  /** Locates an entry that begins with the very bytes of the expected column's entry in an earlier record. */
  private def locateAsBefore(end: Int): Boolean =
    expected < layouts.length && {
      val layout = layouts(expected)
      val start = cursor.position
      val isSame = layout.isAt(cursor.bytes, start, end)
      if (isSame) {
        val slot = slots(expected)
        if (slot != NotRequired) setOnce(slot, OneField, start + layout.prefixLength, start + layout.length)
        cursor.position = start + layout.length
        expected += 1
      }
      isSame
    }

  private def locateInEntry(start: Int, end: Int): Unit = {
    var keyStart, keyEnd, valueStart, valueEnd = cursor.position // of what is left out: empty
    while (cursor.position < end) {
      val tag = cursor.readTag(end)
      if (tag == Wire.Delimited1) {
        keyEnd = cursor.readEnd(end)
        keyStart = cursor.position
        cursor.position = keyEnd
      } else if (tag == Wire.Delimited2) {
        valueEnd = cursor.readEnd(end)
        valueStart = cursor.position
        cursor.position = valueEnd
      } else {
        cursor.skip(tag, end)
      }
    }
    val index = columnOf(keyStart, keyEnd - keyStart)
    if (index != NotAColumn) {
      expected = index + 1
      if (slots(index) == NotRequired) {
        if (keyStart < keyEnd) layouts(index).learn(cursor.bytes, start, keyEnd, end)
      } else {
        locateInFeature(slots(index), valueStart, valueEnd)
        if (ends(slots(index)) == end) learnLayout(index, start, end)
      }
    }
    cursor.position = end
  }

  /** The column of a key: most often the expected one. */
  private def columnOf(keyStart: Int, length: Int): Int = {
    val isExpected = expected < columnKeys.length && columnKeys(expected).length == length &&
      LittleEndian.areEqual(columnKeys(expected), 0, cursor.bytes, keyStart, length)
    if (isExpected) expected
    else keys.getOrElse(UTF8String.fromBytes(cursor.bytes, keyStart, length), NotAColumn)
  }

  private def locateInFeature(slot: Int, start: Int, end: Int): Unit = {
    setOnce(slot, NoList, end, end)
    cursor.position = start
    while (cursor.position < end) {
      val tag = cursor.readTag(end)
      if (isListTag(tag)) {
        if (kinds(slot) != NoList) throw new BadRecord(s"${required(slot)} has two lists in one feature")
        kinds(slot) = tag >>> 3
        ends(slot) = cursor.readEnd(end)
        starts(slot) = cursor.position
        cursor.position = ends(slot)
      } else {
        cursor.skip(tag, end)
      }
    }
  }

  private def setRun(first: Int, run: FloatRun, start: Int): Unit = {
    var slot = first
    while (slot < first + run.count) {
      if (kinds(slot) != Missing) throw twice(slot)
      kinds(slot) = OfRun
      slot += 1
    }
    starts(first) = start
  }

  private def twice(slot: Int): BadRecord = new BadRecord(s"${required(slot)} is in the record twice")

  private def setOnce(slot: Int, kind: Int, start: Int, end: Int): Unit = {
    if (kinds(slot) != Missing) throw twice(slot)
    kinds(slot) = kind
    starts(slot) = start
    ends(slot) = end
  }

  /** Remembers how an entry begins whose list is the right one and one delimited field, up to the entry's end. */
  private def learnLayout(index: Int, start: Int, end: Int): Unit = {
    val slot = slots(index)
    val isRightList = kinds(slot) == required(slot).element.list.fieldNumber
    cursor.position = starts(slot) + 1
    if (isRightList && starts(slot) < end && cursor.bytes(starts(slot)) == Wire.Delimited1 && cursor.readEnd(end) == end) {
      layouts(index).learn(cursor.bytes, start, cursor.position, end)
    }
  }
}

private[tfrecord] object FeatureLocator {
  // Kinds besides the field numbers of ListKind.
  final val Missing = -1
  final val NoList = 0
  final val OneField = 4 // the right list, which is one delimited field
  final val OfRun = 5 // with its run, which lies where `starts` of the run's first column says

  private final val NotRequired = -1
  private final val NotAColumn = -1

  private def isListTag(tag: Int): Boolean = (tag & 7) == Wire.DelimitedType && tag >>> 3 <= 3
}

/**
 * How an entry was laid out: its length and the bytes before its payload; where the payload does not matter, up to the
 * key's end. These bytes hold every length and tag, so an entry that begins with them is laid out alike.
 */
private[tfrecord] final class EntryLayout {
  private var prefix = Array.emptyByteArray

  var prefixLength: Int = 0
  var length: Int = 0

  def learn(bytes: Array[Byte], start: Int, payloadStart: Int, end: Int): Unit = {
    prefixLength = payloadStart - start
    length = end - start
    if (prefix.length < prefixLength) prefix = new Array[Byte](prefixLength)
    System.arraycopy(bytes, start, prefix, 0, prefixLength)
  }

  def isAt(bytes: Array[Byte], start: Int, limit: Int): Boolean =
    length > 0 && length <= limit - start && LittleEndian.areEqual(prefix, 0, bytes, start, prefixLength)
}
