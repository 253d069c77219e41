package io.sparkdl.tfrecord

import java.util.Locale

import scala.util.Try

import com.fasterxml.jackson.databind.ObjectMapper
import org.apache.spark.sql.catalyst.util.CaseInsensitiveMap

/**
 * The options of `format("tfrecord")`, checked. Names, and values that are words, ignore case. Options that are not
 * ours pass: Spark sends its own along.
 */
private[tfrecord] final class TFRecordOptions(parameters: Map[String, String]) extends Serializable {
  import TFRecordOptions._

  private val options = CaseInsensitiveMap(parameters)

  /** What a record holds: a row as a `tf.train.Example` or `tf.train.SequenceExample`, or the bytes of one column. */
  val recordType: String = oneOf(RecordType, Seq(Example, SequenceExample, ByteArray))

  /** How a file is compressed; `compression` is Spark's usual name for it. On reading: `None` goes by the file's name. */
  val codec: Option[Codec] =
    text(CodecName).orElse(text(Compression)).map(name => Codec.named(name).getOrElse(throw badCodec(name)))

  /** Rows of an Example. More than one: columns are concatenated, see [[PackedSerializer]]. */
  val rowsPerRecord: Int = positive(RowsPerRecord, 1).toInt

  /** Dimensions of the values of array columns that have fixed ones, by (dotted) column. */
  val shapes: Map[String, Seq[Int]] = text(Shapes).fold(Map.empty[String, Seq[Int]])(parsedShapes)

  /** Whether double, decimal and vectors may become 32-bit floats. */
  val allowLossy: Boolean = flag(AllowLossy, default = false)

  /** Whether a null is left out of its record, and what is left out is read as null, instead of being an error. */
  val omitNulls: Boolean = oneOf(Nulls, Seq("error", "omit")) == "omit"

  /** Whether what cannot be read is left out and counted, instead of being an error. */
  val dropMalformed: Boolean = oneOf(Mode, Seq("FAILFAST", "DROPMALFORMED")) == "DROPMALFORMED"

  /** A task goes on in another file once one has so many bytes. */
  val shardSizeBytes: Long = positive(ShardSizeBytes, 128L << 20)

  /** Records that are looked at to infer a schema, over all files. */
  val sampleRecords: Int = positive(SampleRecords, 1000).toInt

  /** Whether the side-file is written, and believed on reading. */
  val sideFile: Boolean = flag(SideFileName, default = true)

  /** Spark's own option: whether to put up with files that have disappeared; its setting decides where this is silent. */
  val ignoreMissingFiles: Option[Boolean] = text(IgnoreMissingFiles).flatMap(value => Try(value.toBoolean).toOption)

  if (rowsPerRecord > 1) {
    if (recordType != Example) throw conflict(s"$RecordType=$recordType", "only Examples are packed")
    if (omitNulls) throw conflict(s"$Nulls=omit", "a pack has no place for a missing value")
  }

  /** These options, and where they are silent those that a file was written with. */
  def or(written: Map[String, String]): TFRecordOptions =
    if (written.isEmpty) this
    else new TFRecordOptions(written.filterNot { case (name, _) => options.contains(name) } ++ parameters)

  /** What a reader must know to turn records into rows again. */
  def forReaders: Map[String, String] =
    Seq(RecordType, RowsPerRecord, Shapes, AllowLossy, Nulls).flatMap(name => text(name).map(name -> _)).toMap

  private def text(name: String): Option[String] = options.get(name).map(_.trim).filter(_.nonEmpty)

  /** The value of option `name` as spelled in `supported`, whose first entry is the default. */
  private def oneOf(name: String, supported: Seq[String]): String = text(name) match {
    case None => supported.head
    case Some(value) =>
      supported
        .find(_.toLowerCase(Locale.ROOT) == value.toLowerCase(Locale.ROOT))
        .getOrElse(throw TFRecordException.unsupportedOption(name, value, supported))
  }

  private def flag(name: String, default: Boolean): Boolean =
    oneOf(name, if (default) Seq("true", "false") else Seq("false", "true")) == "true"

  private def positive(name: String, default: Long): Long = text(name).fold(default) { value =>
    Try(value.toLong).filter(number => number > 0 && (name == ShardSizeBytes || number <= Int.MaxValue))
      .getOrElse(throw TFRecordException.unsupportedOption(name, value, Seq("a whole number from 1 on")))
  }

  private def parsedShapes(json: String): Map[String, Seq[Int]] =
    Try {
      val tree = new ObjectMapper().readTree(json)
      require(tree.isObject)
      Json.fields(tree).map { case (column, sizes) =>
        val dimensions = Json.elements(sizes)
        require(dimensions.nonEmpty && dimensions.forall(size => size.isInt && size.asInt > 0))
        column -> dimensions.map(_.asInt)
      }.toMap
    }.getOrElse(throw TFRecordException.unsupportedOption(Shapes, json, Seq("""JSON such as {"pixels": [28, 28]}""")))

  private def badCodec(name: String): TFRecordException =
    TFRecordException.unsupportedOption(CodecName, name, Codec.ShortNames :+ "the class name of a Hadoop codec")

  private def conflict(setting: String, why: String): TFRecordException =
    new TFRecordException(s"Options $RowsPerRecord=$rowsPerRecord and $setting do not go together: $why.")
}

private[tfrecord] object TFRecordOptions {
  val RecordType = "recordType"
  val CodecName = "codec"
  val Compression = "compression"
  val RowsPerRecord = "rowsPerRecord"
  val Shapes = "shapes"
  val AllowLossy = "allowLossy"
  val Nulls = "nulls"
  val Mode = "mode"
  val ShardSizeBytes = "shardSizeBytes"
  val SampleRecords = "sampleRecords"
  val SideFileName = "sideFile"
  val IgnoreMissingFiles = "ignoreMissingFiles"

  val Example = "Example"
  val SequenceExample = "SequenceExample"
  val ByteArray = "ByteArray"
}
