package io.sparkdl.tfrecord

import java.io.{InputStream, OutputStream}
import java.lang.management.ManagementFactory

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.util.ArrayData
import org.apache.spark.sql.types._
import org.scalatest.funsuite.AnyFunSuite

/**
 * Writing and reading allocate less than 64 MiB in all, whatever the size of the file, for records up to 64 MB: so they
 * cannot hold more. The row itself is Spark's, whoever reads it.
 */
class MemorySuite extends AnyFunSuite {
  import Examples._

  private val limit = 64L << 20
  private val one = schema("x" -> BinaryType)
  private val threads = ManagementFactory.getThreadMXBean.asInstanceOf[com.sun.management.ThreadMXBean]

  private def allocated(work: => Unit): Long = {
    val id = Thread.currentThread.getId
    val before = threads.getThreadAllocatedBytes(id)
    work
    threads.getThreadAllocatedBytes(id) - before
  }

  private object Nowhere extends OutputStream {
    override def write(byte: Int): Unit = ()
    override def write(bytes: Array[Byte], from: Int, count: Int): Unit = ()
  }

  /** `times` times the bytes of a file, without holding them. */
  private final class Repeated(file: Array[Byte], times: Int) extends InputStream {
    private var position = 0L
    override def read(): Int = throw new UnsupportedOperationException
    override def read(bytes: Array[Byte], from: Int, count: Int): Int =
      if (position == file.length.toLong * times) -1
      else {
        val at = (position % file.length).toInt
        val size = math.min(count, file.length - at)
        System.arraycopy(file, at, bytes, from, size)
        position += size
        size
      }
  }

  private def fileOf(sizes: Seq[Int]): Array[Byte] = frame(sizes.map(size => encode(one, unsafe(one, new Array[Byte](size)))): _*)

  for ((what, size, count) <- Seq(("64 MB", 64000000 - 100, 4), ("1 MB", 1000000, 300), ("1 kB", 1000, 300000))) {
    test(s"$count records of $what are written") {
      val row = unsafe(one, new Array[Byte](size))
      val taken = allocated {
        val records = new RecordWriter(Nowhere)
        val serializer = new ExampleSerializer(written(one))
        (1 to count).foreach(_ => serializer.write(row, records))
        records.close()
        assert(records.numRecords == count)
      }
      assert(taken < limit)
    }

    test(s"$count records of $what are read") {
      val file = fileOf(Seq(size))
      var found = 0
      val taken = allocated {
        val records = new RecordReader(new Repeated(file, count), "file")
        while (records.next()) found += 1
      }
      assert(found == count)
      assert(taken < limit)
    }
  }

  for ((size, perPack) <- Seq((1000, 56000), (100000, 560), (1000000, 56), (18000000, 3))) {
    test(s"packs of $perPack rows of $size bytes are held once, with little more") {
      val rows = schema("x" -> BinaryType, "n" -> LongType, "f" -> FloatType, "g" -> FloatType)
      val row = unsafe(rows, new Array[Byte](size), 7L, 1f, 2f)
      val packs = if (size > (1 << 20)) 1 else 4 // longer values take their size anew, and leave it
      def write(serializer: RecordSerializer, numRecords: Int): Long = allocated {
        val records = new RecordWriter(Nowhere)
        (1 to packs * perPack).foreach(_ => serializer.write(row, records))
        serializer.finish(records)
        records.close()
        assert(records.numRecords == numRecords)
      }
      // what looking at the rows takes is not held, and depends on how far they are compiled: the same rows in small packs
      val small = math.max(1, perPack / 100)
      val ofRows = math.max(0L, write(new PackedSerializer(written(rows), small), packs * perPack / small) - (4L << 20))
      assert(write(new PackedSerializer(written(rows), perPack), packs) - ofRows < limit)
    }
  }

  test("a SequenceExample of 60 MB is written") {
    val rows = schema("xs" -> ArrayType(ArrayType(FloatType)))
    val options = new TFRecordOptions(Map("recordType" -> "SequenceExample"))
    val steps = ArrayData.toArrayData(Array.fill[Any](15)(ArrayData.toArrayData(new Array[Float](1000000))))
    val row = InternalRow(steps)
    val taken = allocated {
      val records = new RecordWriter(Nowhere)
      val serializer = RecordSerializer(written(rows, options), options)
      (1 to 3).foreach(_ => serializer.write(row, records))
      records.close()
      assert(records.numBytes > 180000000)
    }
    assert(taken < limit)
  }

  test("records that grow are read in one window of the longest") {
    val file = fileOf(Seq(10, 1 << 21, 5 << 20, 30 << 20))
    val taken = allocated {
      val records = new RecordReader(new Repeated(file, 3), "file")
      while (records.next()) ()
    }
    assert(taken < limit)
  }
}
