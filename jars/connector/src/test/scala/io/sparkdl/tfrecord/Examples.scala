package io.sparkdl.tfrecord

import java.io.{ByteArrayInputStream, ByteArrayOutputStream}

import scala.util.Random

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{UnsafeProjection, UnsafeRow}
import org.apache.spark.sql.types._

/** What the tests share: rows, records and a tiny writer of protobuf fields that owes nothing to the serializer. */
object Examples {

  def schema(columns: (String, DataType)*): StructType =
    StructType(columns.map { case (name, dataType) => StructField(name, dataType) })

  def unsafe(schema: StructType, values: Any*): UnsafeRow =
    UnsafeProjection.create(schema)(InternalRow(values: _*)).copy()

  def encode(schema: StructType, row: InternalRow): Array[Byte] = {
    val serializer = new ExampleSerializer(written(schema))
    val bytes = new Array[Byte](serializer.measure(row))
    serializer.put(row, bytes, 0)
    bytes
  }

  def decode(schema: StructType, bytes: Array[Byte]): UnsafeRow = decode(schema, schema, bytes)

  def decode(schema: StructType, required: StructType, bytes: Array[Byte]): UnsafeRow = {
    val shifted = Array.fill[Byte](7)(0x55) ++ bytes ++ Array.fill[Byte](9)(0x55) // a record is never alone in a window
    row(new ExampleDeserializer(readable(schema), readable(required)), shifted, 7, bytes.length).copy()
  }

  val defaults = new TFRecordOptions(Map.empty)

  def written(schema: StructType, options: TFRecordOptions = defaults): IndexedSeq[FeatureColumn] =
    RecordLayout.forWrite(schema, options).columns

  def readable(schema: StructType, options: TFRecordOptions = defaults): IndexedSeq[FeatureColumn] =
    RecordLayout.forRead(schema, options).columns

  def row(deserializer: RecordDeserializer, bytes: Array[Byte], start: Int, length: Int): UnsafeRow = {
    deserializer.start(bytes, start, length)
    deserializer.next()
  }

  /** `Random.nextBytes(length)` of Scala 2.13. */
  def randomBytes(random: Random, length: Int): Array[Byte] = {
    val bytes = new Array[Byte](length)
    random.nextBytes(bytes)
    bytes
  }

  // ---- protobuf by hand

  def varint(value: Long): Array[Byte] =
    if ((value & ~0x7fL) == 0) Array(value.toByte) else (value | 0x80).toByte +: varint(value >>> 7)

  def field(number: Int, content: Array[Byte]*): Array[Byte] = {
    val bytes = content.flatten.toArray
    varint((number << 3 | 2).toLong) ++ varint(bytes.length.toLong) ++ bytes
  }

  def entry(key: String, feature: Array[Byte]): Array[Byte] =
    field(1, field(1, key.getBytes("UTF-8")), field(2, feature))

  def example(entries: Array[Byte]*): Array[Byte] = field(1, entries: _*)

  // ---- files

  def frame(records: Array[Byte]*): Array[Byte] = {
    val out = new ByteArrayOutputStream
    val writer = new RecordWriter(out)
    records.foreach { record =>
      val start = writer.start(record.length)
      System.arraycopy(record, 0, writer.buffer, start, record.length)
      writer.finish()
    }
    writer.close()
    out.toByteArray
  }

  def unframe(file: Array[Byte]): Seq[Seq[Byte]] = unframe(new RecordReader(new ByteArrayInputStream(file), "file"))

  def unframe(reader: RecordReader): Seq[Seq[Byte]] =
    Iterator
      .continually(reader.next())
      .takeWhile(identity)
      .map(_ => reader.buffer.slice(reader.start, reader.start + reader.length).toSeq)
      .toList
}
