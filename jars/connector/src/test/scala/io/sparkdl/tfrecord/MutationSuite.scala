package io.sparkdl.tfrecord

import java.io.{ByteArrayInputStream, ByteArrayOutputStream}

import scala.util.Random

import org.apache.spark.sql.catalyst.expressions.UnsafeRow
import org.apache.spark.sql.catalyst.util.ArrayData
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String
import org.scalatest.funsuite.AnyFunSuite

/**
 * Random damages of small files: an error, or the very rows that were written, or a file that the side-file knows to be
 * another one. Never another exception, never a hang. `SPARK_DL_MUTATIONS` says how many (100,000).
 */
class MutationSuite extends AnyFunSuite {
  import Examples._

  private val mutations = sys.env.get("SPARK_DL_MUTATIONS").fold(100000)(_.toInt)
  private val columns =
    schema("n" -> LongType, "xs" -> ArrayType(FloatType), "t" -> StringType, "flag" -> BooleanType)

  private val rows: Seq[UnsafeRow] = (0 until 8).map { i =>
    unsafe(
      columns, i * 1000L, ArrayData.toArrayData(Array.fill(i % 3)(i.toFloat)), UTF8String.fromString("text" * (i % 3)), i % 2 == 0)
  }

  private def file(options: TFRecordOptions): Array[Byte] = {
    val out = new ByteArrayOutputStream
    val records = new RecordWriter(out)
    val serializer = RecordSerializer(written(columns, options), options)
    rows.foreach(serializer.write(_, records))
    serializer.finish(records)
    records.close()
    out.toByteArray
  }

  private def read(bytes: Array[Byte], options: TFRecordOptions): Seq[UnsafeRow] = {
    val records = new RecordReader(new ByteArrayInputStream(bytes), "file")
    val deserializer = RecordDeserializer(readable(columns, options), readable(columns, options), options)
    val found = Seq.newBuilder[UnsafeRow]
    while (records.next()) {
      deserializer.start(records.buffer, records.start, records.length)
      while (deserializer.hasNext) found += deserializer.next().copy()
    }
    found.result()
  }

  private def digest(bytes: Array[Byte]): (Long, Int) = {
    val sum = new FileDigest(new ByteArrayOutputStream)
    sum.write(bytes, 0, bytes.length)
    (sum.numBytes, sum.crc)
  }

  private def damaged(bytes: Array[Byte], random: Random): Array[Byte] = {
    val copy = bytes.clone()
    val at = random.nextInt(bytes.length)
    random.nextInt(7) match {
      case 0 => copy(at) = (copy(at) ^ (1 << random.nextInt(8))).toByte; copy
      case 1 => copy.take(at)
      case 2 => copy.patch(at, Nil, 1 + random.nextInt(40))
      case 3 => copy.patch(at, copy.slice(at, at + 1 + random.nextInt(80)), 0)
      case 4 => copy.patch(at, randomBytes(random, 1 + random.nextInt(16)), 1 + random.nextInt(16))
      case 5 => // a length that no file has, with its checksum
        val start = random.nextInt(math.max(1, bytes.length - 12))
        LittleEndian.putLong(1L << (20 + random.nextInt(44)), copy, start)
        LittleEndian.putInt(new MaskedCrc32c().of(copy, start, 8), copy, start + 8)
        copy
      case _ => // whole records that are gone, come twice or change places
        val records = random.shuffle(unframe(bytes).map(_.toArray))
        frame(records.take(random.nextInt(records.size + 1)) ++ records.take(random.nextInt(2)): _*)
    }
  }

  /** Damage below the checksums: what a record holds is any bytes. */
  private def garbled(bytes: Array[Byte], random: Random): Array[Byte] =
    frame(unframe(bytes).map { record =>
      val copy = record.toArray
      if (copy.nonEmpty && random.nextInt(3) == 0) {
        val at = random.nextInt(copy.length)
        copy(at) = random.nextInt(256).toByte
      }
      copy
    }: _*)

  for (packed <- Seq(1, 3)) {
    val options = new TFRecordOptions(Map("rowsPerRecord" -> packed.toString))

    test(s"$mutations damages of a file with $packed rows a record are errors, or known by the side-file") {
      val bytes = file(options)
      assert(read(bytes, options) == rows)
      val sound = digest(bytes)
      val random = new Random(packed)
      var errors = 0
      for (_ <- 1 to mutations / 2) {
        val other = damaged(bytes, random)
        try {
          val found = read(other, options)
          if (found != rows) assert(digest(other) != sound)
        } catch { case _: TFRecordException | _: BadRecord => errors += 1 }
        if (!java.util.Arrays.equals(other, bytes)) assert(digest(other) != sound)
      }
      assert(errors > mutations / 4)
    }

    test(s"records of any bytes are an error or rows, with $packed rows a record") {
      val bytes = file(options)
      val random = new Random(packed)
      for (_ <- 1 to mutations / 10) {
        try read(garbled(bytes, random), options)
        catch { case _: BadRecord => () }
      }
    }
  }

  test("a length that no file has allocates nothing") {
    val header = new Array[Byte](40)
    for (power <- 24 to 62) {
      LittleEndian.putLong(1L << power, header, 0)
      LittleEndian.putInt(new MaskedCrc32c().of(header, 0, 8), header, 8)
      val reader = new RecordReader(new ByteArrayInputStream(header), "file")
      intercept[TFRecordException](reader.next())
      assert(reader.buffer.length <= (2 << 20))
    }
  }
}
