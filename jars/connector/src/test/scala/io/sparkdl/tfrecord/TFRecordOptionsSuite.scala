package io.sparkdl.tfrecord

import org.scalatest.funsuite.AnyFunSuite

class TFRecordOptionsSuite extends AnyFunSuite {

  test("no option is needed, and options of others pass") {
    val options = new TFRecordOptions(Map("path" -> "/x", "mergeSchema" -> "true"))
    assert(options.recordType == "Example")
    assert(options.codec == "none")
  }

  test("names and values ignore case") {
    val options = new TFRecordOptions(Map("RECORDTYPE" -> "example", "Codec" -> "UNCOMPRESSED", "compression" -> ""))
    assert(options.recordType == "Example")
    assert(options.codec == "uncompressed")
  }

  for ((name, value, supported) <- Seq(
      ("codec", "gzip", "none, uncompressed"),
      ("compression", "snappy", "none, uncompressed"),
      ("recordType", "SequenceExample", "Example"))) {
    test(s"$name=$value is refused with what is supported") {
      val error = intercept[TFRecordException](new TFRecordOptions(Map(name -> value)))
      assert(
        error.getMessage == s"Option $name=$value is not supported for TFRecord. Supported: $supported."
      )
    }
  }
}
