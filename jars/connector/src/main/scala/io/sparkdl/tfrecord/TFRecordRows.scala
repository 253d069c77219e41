package io.sparkdl.tfrecord

import java.io.Closeable

import org.apache.hadoop.conf.Configuration
import org.apache.spark.TaskContext
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.UnsafeRow
import org.apache.spark.sql.execution.datasources.PartitionedFile

/** The rows of one file. Every record's checksums are checked, whichever columns are asked for. */
private[tfrecord] final class TFRecordRows(records: RecordReader, deserializer: ExampleDeserializer)
    extends Iterator[InternalRow]
    with Closeable {

  private var looked = false // whether `found` speaks of the next row
  private var found = false

  override def hasNext: Boolean = {
    if (!looked) {
      found = records.next()
      looked = true
      if (!found) close()
    }
    found
  }

  override def next(): InternalRow = {
    if (!hasNext) throw new NoSuchElementException("end of the TFRecord file")
    looked = false
    row()
  }

  override def close(): Unit = records.close()

  private def row(): UnsafeRow =
    try deserializer.deserialize(records.buffer, records.start, records.length)
    catch { case bad: BadRecord => throw records.failure(bad.getMessage) }
}

private[tfrecord] object TFRecordRows {

  /** Opens `file`; it is closed at its end or at the end of the task. */
  def open(
      file: PartitionedFile,
      conf: Configuration,
      columns: IndexedSeq[FeatureColumn],
      required: IndexedSeq[FeatureColumn]): TFRecordRows = {
    val path = file.toPath
    val records = new RecordReader(path.getFileSystem(conf).open(path), path.toString)
    Option(TaskContext.get()).foreach(_.addTaskCompletionListener[Unit](_ => records.close()))
    val deserializer = new ExampleDeserializer(columns, required)
    new TFRecordRows(records, deserializer)
  }
}
