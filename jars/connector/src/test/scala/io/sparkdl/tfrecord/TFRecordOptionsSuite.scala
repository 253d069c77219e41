package io.sparkdl.tfrecord

import org.scalatest.funsuite.AnyFunSuite

class TFRecordOptionsSuite extends AnyFunSuite {

  private def options(settings: (String, String)*) = new TFRecordOptions(settings.toMap)

  test("no option is needed, and options of others pass") {
    val none = options("path" -> "/x", "mergeSchema" -> "true")
    assert(none.recordType == "Example")
    assert(none.codec.isEmpty && none.rowsPerRecord == 1 && none.shapes.isEmpty)
    assert(!none.allowLossy && !none.omitNulls && !none.dropMalformed && none.sideFile)
    assert(none.shardSizeBytes == (128L << 20))
  }

  test("names and values ignore case") {
    val some = options("RECORDTYPE" -> "sequenceexample", "Codec" -> "UNCOMPRESSED", "mode" -> "dropmalformed")
    assert(some.recordType == "SequenceExample")
    assert(some.codec.contains(Codec.Uncompressed))
    assert(some.dropMalformed)
    assert(options("compression" -> "").codec.isEmpty)
  }

  for ((name, extension) <- Seq(
      "gzip" -> ".gz",
      "deflate" -> ".deflate",
      "zstd" -> ".zst",
      "none" -> "",
      "org.apache.hadoop.io.compress.GzipCodec" -> ".gz",
      "org.apache.hadoop.io.compress.BZip2Codec" -> ".bz2")) {
    test(s"codec $name writes files *.tfrecord$extension") {
      assert(options("codec" -> name).codec.map(_.extension).contains(extension))
      assert(options("compression" -> name).codec.map(_.extension).contains(extension))
    }
  }

  for ((name, value, supported) <- Seq(
      ("codec", "gzipp", "none, uncompressed, gzip, deflate, zstd, the class name of a Hadoop codec"),
      ("codec", "java.lang.String", "none, uncompressed, gzip, deflate, zstd, the class name of a Hadoop codec"),
      ("recordType", "Row", "Example, SequenceExample, ByteArray"),
      ("mode", "PERMISSIVE", "FAILFAST, DROPMALFORMED"),
      ("nulls", "skip", "error, omit"),
      ("rowsPerRecord", "0", "a whole number from 1 on"),
      ("rowsPerRecord", "many", "a whole number from 1 on"),
      ("allowLossy", "yes", "false, true"),
      ("shapes", "[1]", "JSON such as {\"pixels\": [28, 28]}"),
      ("shapes", "{\"x\": [0]}", "JSON such as {\"pixels\": [28, 28]}"))) {
    test(s"$name=$value is refused with what is supported") {
      val error = intercept[TFRecordException](options(name -> value))
      assert(error.getMessage == s"Option $name=$value is not supported for TFRecord. Supported: $supported.")
    }
  }

  test("which codecs TensorFlow reads") {
    val names = Seq("none", "gzip", "deflate", "zstd", "org.apache.hadoop.io.compress.BZip2Codec")
    assert(names.filter(name => Codec.named(name).get.isOfTensorFlow) == Seq("none", "gzip", "deflate"))
  }

  test("packs go with Examples without nulls only") {
    for (other <- Seq("recordType" -> "ByteArray", "nulls" -> "omit")) {
      val error = intercept[TFRecordException](options("rowsPerRecord" -> "8", other))
      assert(error.getMessage.contains("do not go together"))
    }
  }

  test("what was written with counts where the reader says nothing") {
    val written = options("rowsPerRecord" -> "8", "shapes" -> """{"x": [2]}""", "codec" -> "gzip").forReaders
    assert(options().or(written).rowsPerRecord == 8)
    assert(options("ROWSPERRECORD" -> "4").or(written).rowsPerRecord == 4)
    assert(options().or(written).shapes == Map("x" -> Seq(2)))
    assert(!written.contains("codec"))
  }
}
