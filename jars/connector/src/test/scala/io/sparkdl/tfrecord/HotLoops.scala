package io.sparkdl.tfrecord

import java.io.{ByteArrayInputStream, OutputStream}
import java.util.zip.CRC32C

import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String

/** Nanoseconds a row of the loops, without Spark, beside their ceilings: `tools/sbt "connector/Test/runMain io.sparkdl.tfrecord.HotLoops"`. */
object HotLoops {
  private val rows = 100000

  private def best(name: String, count: Int)(work: => Unit): Unit = {
    val times = (1 to 15).map { _ =>
      val start = System.nanoTime()
      work
      System.nanoTime() - start
    }
    println(f"$name%-58s ${times.min.toDouble / count}%8.1f ns")
  }

  def main(args: Array[String]): Unit = {
    val floats = (0 until 16).map(i => f"f$i%02d" -> (FloatType: DataType))
    val schema = Examples.schema(("label" -> LongType) +: floats :+ ("text" -> StringType): _*)
    def rowOf(label: Long, text: String) = Examples.unsafe(
      schema, Seq[Any](label) ++ (0 until 16).map(_ / 3f) ++ Seq[Any](UTF8String.fromString(text)): _*)
    val alike = Array.fill(8)(rowOf(123, "customer00042"))
    val varying = Array.tabulate(8)(i => rowOf(1L << (9 * (i % 4)), "customer00042".take(13 - i)))
    val columns = Examples.written(schema)
    val record = Examples.encode(schema, alike(0))
    println(s"a record of tab has ${record.length} bytes")
    val nowhere = new OutputStream {
      override def write(byte: Int): Unit = ()
      override def write(bytes: Array[Byte], from: Int, count: Int): Unit = ()
    }
    for ((packed, row, kind) <- Seq((1, alike, ""), (1, varying, " of varying lengths"), (1000, alike, ""))) {
      val options = new TFRecordOptions(Map("rowsPerRecord" -> packed.toString))
      best(s"encode$kind, $packed rows a record", rows) {
        val records = new RecordWriter(nowhere)
        val serializer = RecordSerializer(columns, options)
        var i = 0
        while (i < rows) { serializer.write(row(i % 8), records); i += 1 }
        serializer.finish(records)
      }
      val out = new java.io.ByteArrayOutputStream
      val records = new RecordWriter(out)
      val serializer = RecordSerializer(columns, options)
      (1 to rows).foreach(i => serializer.write(row(i % 8), records))
      serializer.finish(records)
      records.close()
      val file = out.toByteArray
      for ((name, required) <- Seq("all columns" -> columns, "the label" -> columns.take(1), "no column" -> columns.take(0))) {
        best(s"decode $name$kind, $packed rows a record", rows) {
          val reader = new RecordReader(new ByteArrayInputStream(file), "file")
          val deserializer = RecordDeserializer(columns, required, options)
          while (reader.next()) {
            deserializer.start(reader.buffer, reader.start, reader.length)
            while (deserializer.hasNext) deserializer.next()
          }
        }
      }
    }
    val copy = new Array[Byte](record.length)
    best("ceiling: CRC-32C of a record", rows) {
      val crc = new CRC32C
      var i = 0
      while (i < rows) { crc.reset(); crc.update(record, 0, record.length); i += 1 }
    }
    best("ceiling: array copy of a record", rows) {
      var i = 0
      while (i < rows) { System.arraycopy(record, 0, copy, 0, record.length); i += 1 }
    }
  }
}
