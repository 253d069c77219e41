package io.sparkdl.tfrecord

import org.apache.hadoop.fs.Path
import org.apache.hadoop.mapreduce.TaskAttemptContext
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.execution.datasources.{OutputWriter, OutputWriterFactory}
import org.apache.spark.sql.types.StructType

/** Makes the writer of each file. Travels to the executors. */
private[tfrecord] final class TFRecordOutputWriterFactory extends OutputWriterFactory {

  override def getFileExtension(context: TaskAttemptContext): String = ".tfrecord"

  override def newInstance(path: String, dataSchema: StructType, context: TaskAttemptContext): OutputWriter =
    new TFRecordOutputWriter(path, dataSchema, context)
}

/** Writes the rows of one file. */
private[tfrecord] final class TFRecordOutputWriter(
    val path: String,
    dataSchema: StructType,
    context: TaskAttemptContext)
    extends OutputWriter {

  private val serializer = new ExampleSerializer(SchemaCheck.forWrite(dataSchema))

  private val records = {
    val file = new Path(path)
    new RecordWriter(file.getFileSystem(context.getConfiguration).create(file, false))
  }

  override def write(row: InternalRow): Unit = {
    val start = records.start(serializer.measure(row))
    serializer.put(row, records.buffer, start)
    records.finish()
  }

  override def close(): Unit = records.close()
}
