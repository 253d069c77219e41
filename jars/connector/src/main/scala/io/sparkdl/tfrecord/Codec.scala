package io.sparkdl.tfrecord

import java.io.{ByteArrayInputStream, InputStream, OutputStream}
import java.util.Locale

import scala.util.Try

import com.github.luben.zstd.{ZstdInputStream, ZstdOutputStream}
import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.Path
import org.apache.hadoop.io.compress.{CompressionCodec, CompressionCodecFactory, DefaultCodec, GzipCodec}
import org.apache.hadoop.util.ReflectionUtils

/**
 * How a whole file is compressed. TensorFlow reads `gzip` (its GZIP) and `deflate` (its ZLIB); it cannot read `zstd`
 * nor the other codecs of Hadoop.
 */
private[tfrecord] sealed abstract class Codec(val extension: String) extends Serializable {
  def compress(out: OutputStream, conf: Configuration): OutputStream
  def decompress(in: InputStream, conf: Configuration): InputStream

  /** Whether TensorFlow can read such files. */
  def isOfTensorFlow: Boolean = Codec.OfTensorFlow(extension)
}

private[tfrecord] object Codec {

  val ShortNames: Seq[String] = Seq("none", "uncompressed", "gzip", "deflate", "zstd")

  private val OfTensorFlow = Set("", ".gz", ".deflate")

  case object Uncompressed extends Codec("") {
    override def compress(out: OutputStream, conf: Configuration): OutputStream = out
    override def decompress(in: InputStream, conf: Configuration): InputStream = in
  }

  /** By the library that Spark ships: Hadoop's own codec needs a native Hadoop. */
  case object Zstandard extends Codec(".zst") {
    override def compress(out: OutputStream, conf: Configuration): OutputStream = new ZstdOutputStream(out)
    override def decompress(in: InputStream, conf: Configuration): InputStream =
      new ZstdInputStream(in).setContinuous(false)
  }

  final case class Hadoop(className: String, override val extension: String) extends Codec(extension) {
    override def compress(out: OutputStream, conf: Configuration): OutputStream = make(conf).createOutputStream(out)
    override def decompress(in: InputStream, conf: Configuration): InputStream = make(conf).createInputStream(in)

    private def make(conf: Configuration): CompressionCodec =
      ReflectionUtils.newInstance(conf.getClassByName(className), conf).asInstanceOf[CompressionCodec]
  }

  /** The codec of a short name or of a Hadoop codec's class name; none if there is no such. */
  def named(name: String): Option[Codec] = name.toLowerCase(Locale.ROOT) match {
    case "none" | "uncompressed" => Some(Uncompressed)
    case "gzip" => Some(hadoop(new GzipCodec))
    case "deflate" => Some(hadoop(new DefaultCodec))
    case "zstd" => Some(Zstandard)
    case _ => Try(new Configuration().getClassByName(name).getDeclaredConstructor().newInstance()).toOption.collect {
        case codec: CompressionCodec => hadoop(codec)
      }
  }

  /** The codec of a file, by its name. */
  def of(path: Path, conf: Configuration): Codec =
    if (path.getName.endsWith(Zstandard.extension)) Zstandard
    else Option(new CompressionCodecFactory(conf).getCodec(path)).fold[Codec](Uncompressed)(hadoop)

  /** A stream without bytes. */
  def nothing: InputStream = new ByteArrayInputStream(Array.emptyByteArray)

  private def hadoop(codec: CompressionCodec): Codec = Hadoop(codec.getClass.getName, codec.getDefaultExtension)
}
