package io.sparkdl.tfrecord

import org.apache.hadoop.fs.Path
import org.apache.hadoop.mapreduce.TaskAttemptContext
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.execution.datasources.{OutputWriter, OutputWriterFactory}
import org.apache.spark.sql.types.StructType

/** Makes the writer of each file. Travels to the executors. */
private[tfrecord] final class TFRecordOutputWriterFactory(options: TFRecordOptions) extends OutputWriterFactory {

  override def getFileExtension(context: TaskAttemptContext): String = TFRecordOutputWriter.extension(options)

  override def newInstance(path: String, dataSchema: StructType, context: TaskAttemptContext): OutputWriter =
    new TFRecordOutputWriter(path, dataSchema, options, context)
}

/** Writes the rows of one task, into one file or, by `shardSizeBytes`, several. */
private[tfrecord] final class TFRecordOutputWriter(
    val path: String,
    dataSchema: StructType,
    options: TFRecordOptions,
    context: TaskAttemptContext)
    extends OutputWriter {

  private val layout = RecordLayout.forWrite(dataSchema, options)
  private val serializer = RecordSerializer(layout.columns, options)
  private val flatten = layout.flatten
  private var file = new OutputFile(new Path(path))
  private var fileIndex = 0

  override def write(row: InternalRow): Unit = {
    if (file.records.numBytes >= options.shardSizeBytes && serializer.isEven) startAnotherFile()
    serializer.write(flatten(row), file.records)
    file.rows += 1
  }

  override def close(): Unit =
    try serializer.finish(file.records)
    finally file.close()

  private def startAnotherFile(): Unit = {
    file.close()
    fileIndex += 1
    val extension = TFRecordOutputWriter.extension(options)
    file = new OutputFile(new Path(f"${path.stripSuffix(extension)}-$fileIndex%03d$extension"))
  }

  /** One data file and, once that is closed, the side-file beside it. */
  private final class OutputFile(path: Path) {
    private val conf = context.getConfiguration
    private val fs = path.getFileSystem(conf)
    private val codec = options.codec.getOrElse(Codec.Uncompressed)
    private val digest = new FileDigest(RawFiles.create(fs, path, overwrite = false))
    private val isPlain = codec == Codec.Uncompressed
    val records = new RecordWriter(codec.compress(digest, conf), count => if (isPlain) digest.boundary(count))
    var rows = 0L

    def close(): Unit = {
      records.close()
      if (options.sideFile) {
        val segments = if (isPlain) digest.segments else Nil
        val facts = FileFacts(path.getName, rows, records.numRecords, digest.numBytes, digest.crc, segments)
        SideFile.write(
          fs, SideFile.besides(path), SideFile(dataSchema, options.forReaders, Map(path.getName -> facts)))
      }
    }
  }
}

private[tfrecord] object TFRecordOutputWriter {
  def extension(options: TFRecordOptions): String = ".tfrecord" + options.codec.fold("")(_.extension)
}
