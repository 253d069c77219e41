package io.sparkdl.tfrecord

import java.util.Locale

import org.apache.spark.sql.catalyst.util.CaseInsensitiveMap

/**
 * The options of `format("tfrecord")`, checked. Names and values ignore case. Options that are not ours pass: Spark
 * sends its own along.
 */
private[tfrecord] final class TFRecordOptions(parameters: Map[String, String]) {
  import TFRecordOptions._

  private val options = CaseInsensitiveMap(parameters)

  /** What a record holds. `Example`: one row as a `tf.train.Example`. */
  val recordType: String = oneOf(RecordType, Seq("Example"))

  /** How a file is compressed. Only `none`, also spelled `uncompressed`. */
  val codec: String = oneOf(Codec, Uncompressed)

  /** Spark's usual name for `codec`. */
  val compression: String = oneOf(Compression, Uncompressed)

  /** The value of option `name` as spelled in `supported`, whose first entry is the default. */
  private def oneOf(name: String, supported: Seq[String]): String =
    options.get(name).filter(_.nonEmpty) match {
      case None => supported.head
      case Some(value) =>
        supported
          .find(_.toLowerCase(Locale.ROOT) == value.toLowerCase(Locale.ROOT))
          .getOrElse(throw TFRecordException.unsupportedOption(name, value, supported))
    }
}

private[tfrecord] object TFRecordOptions {
  val RecordType = "recordType"
  val Codec = "codec"
  val Compression = "compression"

  private val Uncompressed = Seq("none", "uncompressed")
}
