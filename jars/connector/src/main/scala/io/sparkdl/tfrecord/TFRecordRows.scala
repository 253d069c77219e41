package io.sparkdl.tfrecord

import java.io.{Closeable, InputStream}
import java.util.zip.CRC32C

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileSystem, FSDataInputStream, Path}
import org.apache.spark.TaskContext
import org.apache.spark.internal.Logging
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.execution.datasources.PartitionedFile
import org.apache.spark.sql.types.StructType
import org.apache.spark.util.LongAccumulator

/**
 * What a task needs to read files. Travels to the executors.
 *
 * @param dataSchema all columns of the files
 * @param requiredSchema the columns wanted
 * @param dropped counts the records that `mode=DROPMALFORMED` left out
 */
private[tfrecord] final case class ReadPlan(
    dataSchema: StructType,
    requiredSchema: StructType,
    options: TFRecordOptions,
    dropped: LongAccumulator)

/** The rows of one file, or of a part of it. Every record's checksums are checked, whichever columns are asked for. */
private[tfrecord] final class TFRecordRows(part: FilePart, deserializer: RecordDeserializer, plan: ReadPlan)
    extends Iterator[InternalRow]
    with Closeable
    with Logging {

  private var records = part.open()
  private var isOpen = true
  private var numRows = 0L
  private var numDropped = 0L

  override def hasNext: Boolean = {
    while (isOpen && !deserializer.hasNext) {
      if (!startRecord()) finish()
    }
    isOpen
  }

  override def next(): InternalRow = {
    if (!hasNext) throw new NoSuchElementException("end of the TFRecord file")
    numRows += 1
    try deserializer.next()
    catch { case bad: BadRecord => throw records.failure(bad.getMessage) }
  }

  override def close(): Unit = {
    isOpen = false
    records.close()
  }

  private def startRecord(): Boolean =
    try {
      val found = records.next()
      if (found) deserializer.start(records.buffer, records.start, records.length)
      found
    } catch {
      case bad: BadRecord => drop(records.failure(bad.getMessage))
      case bad: TFRecordException => drop(bad)
    }

  /** @return true: go on with the next record */
  private def drop(error: TFRecordException): Boolean = {
    if (!plan.options.dropMalformed) throw error
    numDropped += 1
    plan.dropped.add(1)
    logWarning(s"left out by mode=DROPMALFORMED: ${error.getMessage}")
    if (!records.canGoOn) {
      val next = part.after(records.nextOffset)
      records.close()
      records = next
    }
    true
  }

  private def finish(): Unit = {
    if (numDropped == 0) part.check(records, numRows)
    else logWarning(s"mode=DROPMALFORMED left out $numDropped records of ${part.name}")
    close()
  }
}

private[tfrecord] object TFRecordRows {

  /** Opens `file`; it is closed at its end or at the end of the task. */
  def open(file: PartitionedFile, conf: Configuration, plan: ReadPlan): Iterator[InternalRow] = {
    val path = file.toPath
    val fs = path.getFileSystem(conf)
    val side = if (plan.options.sideFile) SideFile.of(fs, path) else None
    val options = plan.options.or(side.fold(Map.empty[String, String])(_._1.options))
    val columns = RecordLayout.forRead(plan.dataSchema, options).columns
    val required = RecordLayout.forRead(plan.requiredSchema, options)
    val part = FilePart(RawFiles.of(fs), path, conf, options, side.flatMap(_._2), file.start, file.start + file.length)
    val deserializer = RecordDeserializer(columns, required.columns, options)
    val checked = if (options.dropMalformed) new StrictRows(deserializer, required.columns) else deserializer
    val rows = new TFRecordRows(part, checked, plan)
    Option(TaskContext.get()).foreach(_.addTaskCompletionListener[Unit](_ => rows.close()))
    required.assemble(rows)
  }
}

/** Decodes all rows of a record before it gives the first, so that a record can be left out as a whole. */
private[tfrecord] final class StrictRows(deserializer: RecordDeserializer, required: IndexedSeq[FeatureColumn])
    extends RecordDeserializer {

  private var rows: Iterator[org.apache.spark.sql.catalyst.expressions.UnsafeRow] = Iterator.empty

  override def start(bytes: Array[Byte], start: Int, length: Int): Unit = {
    deserializer.start(bytes, start, length)
    val all = Seq.newBuilder[org.apache.spark.sql.catalyst.expressions.UnsafeRow]
    while (deserializer.hasNext) all += deserializer.next().copy()
    rows = all.result().iterator
  }

  override def hasNext: Boolean = rows.hasNext

  override def next(): org.apache.spark.sql.catalyst.expressions.UnsafeRow = rows.next()
}

/** A file, or the part of it that is one task's, and how to prove that all of it was read. */
private[tfrecord] abstract class FilePart(val name: String) {
  def open(): RecordReader

  /** A reader that begins with the first record after byte `offset`, which is damaged. */
  def after(offset: Long): RecordReader

  /** Called when all records were read; throws where the file is not what it should be. */
  def check(records: RecordReader, numRows: Long): Unit
}

private[tfrecord] object FilePart {

  /**
   * @param facts what the side-file says of the file
   * @param splitStart first byte of the part; records that begin in the part are its own
   * @param splitEnd the byte after the part
   */
  def apply(
      fs: FileSystem,
      path: Path,
      conf: Configuration,
      options: TFRecordOptions,
      facts: Option[FileFacts],
      splitStart: Long,
      splitEnd: Long): FilePart = {
    val length = fs.getFileStatus(path).getLen
    val codec = options.codec.getOrElse(Codec.of(path, conf))
    val checkedFacts = facts.filterNot(_ => options.dropMalformed)
    checkedFacts.filter(_.bytes != length).foreach { written =>
      throw TFRecordException.unlikeSideFile(path.toString, "bytes", length, written.bytes)
    }
    if (codec != Codec.Uncompressed) new WholeFile(fs, path, conf, codec, checkedFacts)
    else checkedFacts match {
      case Some(written) => new Segments(fs, path, written, splitStart, splitEnd)
      case None => new Split(fs, path, length, splitStart, splitEnd)
    }
  }

  /** A compressed file. */
  private final class WholeFile(fs: FileSystem, path: Path, conf: Configuration, codec: Codec, facts: Option[FileFacts])
      extends FilePart(path.toString) {

    private val content = new ChecksummedInput(fs.open(path), Long.MaxValue)

    override def open(): RecordReader = new RecordReader(codec.decompress(content, conf), name)

    override def after(offset: Long): RecordReader = new RecordReader(Codec.nothing, name)

    override def check(records: RecordReader, numRows: Long): Unit = facts.foreach { written =>
      content.drain()
      if (content.crc != written.crc) throw unlike(name, "CRC-32C", content.crc, written.crc)
      if (records.numRecords != written.records) {
        throw TFRecordException.unlikeSideFile(name, "records", records.numRecords, written.records)
      }
    }
  }

  /** The segments of a file that begin in the split: the side-file knows them. */
  private final class Segments(fs: FileSystem, path: Path, facts: FileFacts, splitStart: Long, splitEnd: Long)
      extends FilePart(path.toString) {

    private val mine = facts.segments.filter(segment => segment.offset >= splitStart && segment.offset < splitEnd)
    private val (later, from) = mine.headOption match {
      case Some(first) => (facts.segments.filter(_.offset > mine.last.offset), first)
      case None => (Nil, Segment(facts.bytes, facts.records, 0))
    }
    private val until = later.headOption.fold(facts.bytes)(_.offset)
    private val untilRecord = later.headOption.fold(facts.records)(_.record)
    private val content: ChecksummedInput = {
      val in = fs.open(path)
      in.seek(from.offset)
      new ChecksummedInput(in, until - from.offset, mine.map(_.offset - from.offset).drop(1))
    }

    override def open(): RecordReader =
      new RecordReader(content, name, from.offset, until, Some(from.record))

    override def after(offset: Long): RecordReader = throw new IllegalStateException("DROPMALFORMED checks no side-file")

    override def check(records: RecordReader, numRows: Long): Unit = if (mine.nonEmpty) {
      content.drain()
      mine.zip(content.crcs).foreach { case (segment, found) =>
        if (segment.crc != found) {
          throw unlike(name, s"CRC-32C in the segment at byte ${segment.offset}", found, segment.crc)
        }
      }
      val expected = untilRecord - from.record
      if (records.numRecords != expected) {
        throw TFRecordException.unlikeSideFile(name, s"records from byte ${from.offset} on", records.numRecords, expected)
      }
      val isWhole = from.offset == 0 && until == facts.bytes
      if (isWhole && numRows != facts.rows) throw TFRecordException.unlikeSideFile(name, "rows", numRows, facts.rows)
    }
  }

  /** A part of a file that nothing is known of. */
  private final class Split(fs: FileSystem, path: Path, length: Long, splitStart: Long, splitEnd: Long)
      extends FilePart(path.toString) {

    private def search(in: FSDataInputStream): RecordSearch = new RecordSearch(in, length, name)

    override def open(): RecordReader = {
      val in = fs.open(path)
      val start = if (splitStart == 0) 0L else search(in).firstFrom(splitStart)
      from(in, start)
    }

    private def from(in: FSDataInputStream, start: Long): RecordReader = {
      in.seek(start)
      new RecordReader(in, name, start, splitEnd, if (start == 0) Some(0L) else None)
    }

    override def after(offset: Long): RecordReader = {
      val in = fs.open(path)
      val searching = search(in)
      var next = offset + 1
      while (next < math.min(length, splitEnd) && !searching.isRecord(next)) next += 1
      if (next < math.min(length, splitEnd)) from(in, next)
      else {
        in.close()
        new RecordReader(Codec.nothing, name, length, splitEnd, None)
      }
    }

    /**
     * The next split begins at the first record that it finds from `splitEnd` on. This one knows which that is, so it
     * finds out whether the next one will be right: by induction from the file's start, all are.
     */
    override def check(records: RecordReader, numRows: Long): Unit =
      if (splitEnd < length) {
        val in = fs.open(path)
        try {
          val next = math.max(records.nextOffset, splitStart)
          if (next < length && !search(in).isRecord(next)) {
            throw records.failureAt(next, "the record cannot be read: the file is damaged or truncated")
          }
          val found = search(in).firstFrom(splitEnd)
          if (found != next) {
            throw records.failureAt(
              next, s"the next split of the file would begin with another record, at byte $found: the file holds " +
                "TFRecords in its records; read it in one piece (spark.sql.files.maxPartitionBytes)")
          }
        } finally in.close()
      }
  }

  private def unlike(name: String, what: String, found: Int, written: Int): TFRecordException =
    TFRecordException.unlikeSideFile(name, what, f"$found%08x", f"$written%08x")
}

/**
 * The first `length` bytes of `in`, checksummed on their way.
 *
 * @param boundaries offsets at which another checksum begins
 */
private[tfrecord] final class ChecksummedInput(in: InputStream, length: Long, boundaries: Seq[Long] = Nil)
    extends InputStream {

  private val sum = new CRC32C
  private var position = 0L
  private var ahead = boundaries.toList
  private val finished = Seq.newBuilder[Int]

  override def read(): Int = {
    val one = new Array[Byte](1)
    if (read(one, 0, 1) < 0) -1 else one(0) & 0xff
  }

  override def read(bytes: Array[Byte], from: Int, count: Int): Int = {
    val end = ahead.headOption.getOrElse(length)
    val wanted = math.min(count.toLong, end - position).toInt
    val found = if (wanted <= 0) -1 else in.read(bytes, from, wanted)
    if (found > 0) {
      sum.update(bytes, from, found)
      position += found
      if (ahead.headOption.contains(position)) {
        finished += sum.getValue.toInt
        sum.reset()
        ahead = ahead.tail
      }
    }
    found
  }

  override def close(): Unit = in.close()

  /** Reads what is left. */
  def drain(): Unit = {
    val scratch = new Array[Byte](1 << 13)
    while (read(scratch, 0, scratch.length) > 0) ()
  }

  /** Checksum of what was read since the last boundary. */
  def crc: Int = sum.getValue.toInt

  /** Checksums between the boundaries. */
  def crcs: Seq[Int] = finished.result() :+ crc
}
