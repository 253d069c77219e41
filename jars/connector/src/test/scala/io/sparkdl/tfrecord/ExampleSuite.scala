package io.sparkdl.tfrecord

import java.nio.file.{Files, Paths}

import scala.util.{Random, Try}

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.UnsafeRow
import org.apache.spark.sql.catalyst.util.GenericArrayData
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String
import org.scalatest.funsuite.AnyFunSuite

class ExampleSuite extends AnyFunSuite {
  import Examples._

  private def string(text: String): UTF8String = UTF8String.fromString(text)
  private def array(values: Any*): GenericArrayData = new GenericArrayData(values.toArray[Any])

  private val goldenSchema = schema(
    "a_boolean" -> BooleanType,
    "b_tinyint" -> ByteType,
    "c_smallint" -> ShortType,
    "d_int" -> IntegerType,
    "e_bigint" -> LongType,
    "f_date" -> DateType,
    "g_timestamp" -> TimestampType,
    "h_timestamp_ntz" -> TimestampNTZType,
    "i_float" -> FloatType,
    "j_string" -> StringType,
    "k_binary" -> BinaryType,
    "l_bigints" -> ArrayType(LongType),
    "m_floats" -> ArrayType(FloatType),
    "n_strings" -> ArrayType(StringType),
    "o_booleans" -> ArrayType(BooleanType)
  )

  private val goldenRows = Seq(
    Seq[Any](
      true, Byte.MinValue, Short.MinValue, Int.MinValue, Long.MinValue, -719162, -62135596800000000L, -1L,
      Float.NegativeInfinity, string(""), Array[Byte](0, -1, -2), array(), array(), array(), array(false, true, true)),
    Seq[Any](
      false, Byte.MaxValue, Short.MaxValue, Int.MaxValue, Long.MaxValue, 20778, 1795219200123456L, 0L,
      1.5f, string("Zürich ✓"), Array.emptyByteArray, array(0L, 127L, 128L, -1L, 1L << 62),
      array(0.0f, -0.0f, Float.MinPositiveValue, Float.MaxValue), array(string(""), string("a"), string("日本")), array())
  )

  private val goldenFile = Files.readAllBytes(Paths.get(sys.props("sparkdl.golden"), "connector_types.tfrecord"))

  test("golden file: rows of every type become the very bytes that TensorFlow wrote") {
    val records = goldenRows.map(values => encode(goldenSchema, unsafe(goldenSchema, values: _*)))
    assert(frame(records: _*).toSeq == goldenFile.toSeq)
  }

  test("golden file: rows that are not unsafe rows become the same bytes") {
    val records = goldenRows.map(values => encode(goldenSchema, InternalRow(values: _*)))
    assert(frame(records: _*).toSeq == goldenFile.toSeq)
  }

  test("golden file: a pack of the rows becomes the very bytes that TensorFlow wrote, and these the rows") {
    val bytes = Files.readAllBytes(Paths.get(sys.props("sparkdl.golden"), "connector_packed.tfrecord"))
    val rows = goldenRows.map(values => unsafe(goldenSchema, values: _*))
    val out = new java.io.ByteArrayOutputStream
    val records = new RecordWriter(out)
    val serializer = new PackedSerializer(written(goldenSchema), 2)
    rows.foreach(serializer.write(_, records))
    records.close()
    assert(out.toByteArray.toSeq == bytes.toSeq)
    val record = unframe(bytes).head.toArray
    val deserializer = new PackedDeserializer(readable(goldenSchema), readable(goldenSchema))
    deserializer.start(record, 0, record.length)
    assert(rows.forall(row => deserializer.hasNext && deserializer.next() == row) && !deserializer.hasNext)
  }

  test("golden file: TensorFlow's bytes become the rows of every type") {
    val rows = unframe(goldenFile).map(record => decode(goldenSchema, record.toArray))
    assert(rows == goldenRows.map(values => unsafe(goldenSchema, values: _*)))
  }

  test("floats keep their bits") {
    val bits = Seq(0x7fc00001, 0x7f800001, 0xffc12345, 0x7f800000, 0xff800000, 0x80000000, 1)
    val floats = schema("x" -> FloatType, "xs" -> ArrayType(FloatType))
    for (first <- bits) {
      val values = bits.map(java.lang.Float.intBitsToFloat)
      val row = unsafe(floats, java.lang.Float.intBitsToFloat(first), array(values: _*))
      val back = decode(floats, encode(floats, row))
      assert(back == row) // as bytes
      assert(back.getInt(0) == first)
    }
  }

  test("random rows of every type come back") {
    val random = new Random(7)
    def bytes(): Array[Byte] = randomBytes(random, random.nextInt(300))
    def many(next: => Any): GenericArrayData = array(Seq.fill(random.nextInt(130))(next): _*)
    def number(): Long = random.nextLong() >> random.nextInt(64)
    val columns = Examples.written(goldenSchema)
    val serializer = new ExampleSerializer(columns)
    val deserializer = new ExampleDeserializer(columns, columns)
    for (_ <- 1 to 300) {
      val row = unsafe(
        goldenSchema,
        random.nextBoolean(), number().toByte, number().toShort, number().toInt, number(), number().toInt, number(),
        number(), java.lang.Float.intBitsToFloat(random.nextInt()), UTF8String.fromBytes(bytes()), bytes(),
        many(number()), many(random.nextFloat()), many(UTF8String.fromBytes(bytes())), many(random.nextBoolean())
      )
      val record = new Array[Byte](serializer.measure(row))
      serializer.put(row, record, 0)
      assert(Examples.row(deserializer, record, 0, record.length) == row)
      assert(record.toSeq == encode(goldenSchema, row).toSeq)
    }
  }

  private val wide = schema("x" -> LongType, "y" -> FloatType, "z" -> StringType)
  private def x(value: Long) = entry("x", field(3, field(1, varint(value))))
  private val y = entry("y", field(2, field(1, Array[Byte](0, 0, -64, 63))))
  private val z = entry("z", field(1, field(1, "zett".getBytes)))
  private val wideRow = unsafe(wide, 5L, 1.5f, string("zett"))

  test("features come in any order and among others") {
    val other = entry("other", field(3, field(1, varint(1))))
    val orders = Seq(y, x(5), other, z).permutations
    orders.foreach(entries => assert(decode(wide, example(entries: _*)) == wideRow))
  }

  test("what one record taught about the layout misleads about no other") {
    val three = schema("a" -> LongType, "b" -> LongType, "c" -> ArrayType(LongType))
    def long(key: String, value: Long, keyFirst: Boolean = true) = {
      val parts = Seq(field(1, key.getBytes), field(2, field(3, field(1, varint(value)))))
      field(1, (if (keyFirst) parts else parts.reverse): _*)
    }
    def nameless(value: Long) = field(1, field(2, field(3, field(1, varint(value)))))
    def longs(values: Long*) = entry("c", field(3, field(1, values.map(varint): _*)))
    val records = Seq(
      example(long("a", 1), long("b", 2), longs(3)) -> 2L,
      example(long("a", 300), long("b", 4), longs(1, 2)) -> 4L,
      example(long("a", 5, keyFirst = false), long("b", 6, keyFirst = false), longs()) -> 6L,
      example(long("b", 7, keyFirst = false), long("a", 8, keyFirst = false), longs(9)) -> 7L,
      example(longs(1), nameless(9), long("b", 10), nameless(9), long("a", 11)) -> 10L,
      example(nameless(12), long("z", 13), long("b", 1L << 40), long("a", 14), longs(15)) -> (1L << 40),
      example(long("b", 16), long("a", 17), longs(18, 1L << 50)) -> 16L
    )
    for (required <- Seq(Seq("b"), Seq("b", "c"), Seq("b", "a"), Seq("b", "a", "c")); order <- records.permutations.take(500)) {
      val wanted = StructType(required.map(three(_)))
      val deserializer = new ExampleDeserializer(Examples.readable(three), Examples.readable(wanted))
      for ((bytes, b) <- order) {
        val row = Examples.row(deserializer, bytes, 0, bytes.length)
        assert(row.getLong(0) == b)
        assert(row == decode(three, wanted, bytes))
      }
    }
  }

  test("only required columns are decoded; what is wrong with others does not matter") {
    val broken = entry("y", Array[Byte](-1, -1, -1))
    assert(decode(wide, schema("z" -> StringType), example(x(5), broken, z)) == unsafe(schema("z" -> StringType), string("zett")))
    assert(decode(wide, new StructType, example(broken)).numFields() == 0)
  }

  test("unpacked and packed numbers, in pieces, are one list") {
    val lists = schema("x" -> ArrayType(LongType), "y" -> ArrayType(FloatType))
    val longs = field(3, field(1, varint(1), varint(-1)), varint(8) ++ varint(300), field(1), field(1, varint(4)))
    val one = Array[Byte](0, 0, -64, 63)
    val floats = field(2, Array[Byte](13) ++ one, field(1, one, one), Array[Byte](13) ++ one)
    val row = decode(lists, example(entry("x", longs), entry("y", floats)))
    assert(row == unsafe(lists, array(1L, -1L, 300L, 4L), array(1.5f, 1.5f, 1.5f, 1.5f)))
    val scalars = example(entry("x", field(3, field(1), varint(8) ++ varint(5))), y, z)
    assert(decode(wide, scalars) == wideRow)
  }

  test("unknown fields are skipped at every level") {
    val varintAt9 = Array[Byte](0x48, 1)
    val fixed64At10 = 0x51.toByte +: new Array[Byte](8)
    val fixed32At11 = 0x5d.toByte +: new Array[Byte](4)
    val unknown = field(7, "?".getBytes) ++ varintAt9 ++ fixed64At10 ++ fixed32At11
    val list = field(3, unknown, field(1, varint(5)), unknown)
    val inEntry = field(1, unknown, field(1, "x".getBytes), unknown, field(2, unknown, list), unknown)
    assert(decode(wide, unknown ++ field(1, unknown, inEntry, y, z, unknown) ++ unknown) == wideRow)
  }

  test("features in two pieces of one Example are merged") {
    assert(decode(wide, example(x(5)) ++ example(y, z)) == wideRow)
  }

  test("a feature without a list is an empty array") {
    val lists = schema("x" -> ArrayType(LongType))
    assert(decode(lists, example(entry("x", Array.emptyByteArray))) == unsafe(lists, array()))
  }

  private val defects = Seq(
    ("missing feature", example(y, z), "column `x` (bigint) is not in the record"),
    ("wrong list", example(entry("x", field(2, field(1, new Array[Byte](4)))), y, z),
      "column `x` (bigint) needs Int64List, the record has FloatList"),
    ("wrong empty list", example(entry("x", field(1)), y, z), "needs Int64List, the record has BytesList"),
    ("no value", example(entry("x", field(3)), y, z), "column `x` (bigint) needs one value, the record has 0"),
    ("no list", example(entry("x", Array.emptyByteArray), y, z), "needs one value, the record has 0"),
    ("two values", example(entry("x", field(3, field(1, varint(1), varint(2)))), y, z), "needs one value, the record has 2"),
    ("feature twice", example(x(1), y, z, x(2)), "column `x` (bigint) is in the record twice"),
    ("two lists", example(entry("x", field(3, field(1, varint(1))) ++ field(3, field(1, varint(2)))), y, z), "two lists"),
    ("half a float", example(x(1), entry("y", field(2, field(1, new Array[Byte](6)))), z), "6 bytes are no whole number"),
    ("length beyond the record", Array[Byte](10, 100, 1), "cut off"),
    ("endless varint", example(entry("x", field(3, field(1, Array.fill[Byte](11)(-1)))), y, z), "needs one value"),
    ("varint of 11 bytes", example(entry("x", field(3, field(1, Array.fill[Byte](10)(-1), Array[Byte](1)))), y, z),
      "longer than 10 bytes"),
    ("group", Array[Byte](0x0b), "unknown protobuf wire type 3"),
    ("tag zero", Array[Byte](0), "invalid protobuf tag 0")
  )
  for ((name, bytes, reason) <- defects) {
    test(s"$name is an error") {
      assert(intercept[BadRecord](decode(wide, bytes)).getMessage.contains(reason))
    }
  }

  for ((dataType, inside, outside) <- Seq(
      (BooleanType, 1L, 2L),
      (BooleanType, 0L, -1L),
      (ByteType, 127L, 128L),
      (ByteType, -128L, -129L),
      (ShortType, 32767L, 32768L),
      (ShortType, -32768L, -32769L),
      (IntegerType, Int.MaxValue.toLong, Int.MaxValue + 1L),
      (IntegerType, Int.MinValue.toLong, Int.MinValue - 1L),
      (DateType, Int.MaxValue.toLong, Int.MaxValue + 1L))) {
    test(s"$outside does not become a ${dataType.simpleString}") {
      for (columnType <- Seq(dataType, ArrayType(dataType))) {
        val narrow = schema("x" -> columnType)
        decode(narrow, example(x(inside)))
        val error = intercept[BadRecord](decode(narrow, example(x(outside))))
        assert(error.getMessage.startsWith(s"column `x` (${columnType.simpleString}) holds "))
        assert(error.getMessage.endsWith(s", the record has $outside"))
      }
    }
  }

  test("a null is an error that names column and partition, also in rows that are not unsafe") {
    for (row <- Seq(unsafe(wide, 1L, null, string("z")), InternalRow(1L, null, string("z")))) {
      val error = intercept[TFRecordException](encode(wide, row))
      assert(error.getMessage.startsWith("Cannot write null in column `y` as TFRecord (partition 0)"))
    }
  }

  for (elementType <- Seq(LongType, BooleanType, FloatType, StringType); index <- Seq(0, 1, 63, 64, 199)) {
    test(s"a null at $index in an array<${elementType.simpleString}> is an error that names column and index") {
      val value = Map[DataType, Any](LongType -> 1L, BooleanType -> true, FloatType -> 1f, StringType -> string("a"))(elementType)
      val lists = schema("xs" -> ArrayType(elementType))
      val values = array(Seq.fill(200)(value).updated(index, null): _*)
      for (row <- Seq(unsafe(lists, values), InternalRow(values))) {
        val error = intercept[TFRecordException](encode(lists, row))
        assert(error.getMessage.startsWith(s"Cannot write null in element $index of array column `xs` as TFRecord"))
      }
    }
  }

  test("a row longer than a record may be is refused, by its size") {
    val serializer = new ExampleSerializer(Examples.written(wide), maxBytes = 44)
    assert(serializer.measure(wideRow) == 44)
    val long = unsafe(wide, 5L, 1.5f, string("z" * 100))
    val error = intercept[TFRecordException](serializer.measure(long))
    val size = encode(wide, long).length
    assert(error.getMessage.startsWith(s"Cannot write a row of $size bytes as one TFRecord (partition 0)"))
  }

  test("bytes that no writer made are a row or a BadRecord, never a crash") {
    val random = new Random(3)
    val sound = goldenRows.map(values => encode(goldenSchema, unsafe(goldenSchema, values: _*)))
    for (_ <- 1 to 20000) {
      val bytes = sound(random.nextInt(2)).clone()
      for (_ <- 0 to random.nextInt(3)) bytes(random.nextInt(bytes.length)) = random.nextInt().toByte
      val cut = if (random.nextInt(4) == 0) bytes.take(random.nextInt(bytes.length)) else bytes
      val result = Try(decode(goldenSchema, cut))
      assert(result.fold(_.isInstanceOf[BadRecord], _.isInstanceOf[UnsafeRow]), result)
    }
  }
}
