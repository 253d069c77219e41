package io.sparkdl.tfrecord

import org.apache.spark.sql.types._

/** Turns a schema into feature columns, or refuses it by the first column that a TFRecord cannot hold. */
private[tfrecord] object SchemaCheck {

  def forWrite(schema: StructType): IndexedSeq[FeatureColumn] = columns(schema, "write")

  def forRead(schema: StructType): IndexedSeq[FeatureColumn] = columns(schema, "read")

  private def columns(schema: StructType, verb: String): IndexedSeq[FeatureColumn] =
    schema.fields.toIndexedSeq.map { field =>
      column(field).getOrElse(
        throw TFRecordException.unsupportedType(verb, field.name, field.dataType, advice(field.dataType))
      )
    }

  private def column(field: StructField): Option[FeatureColumn] = field.dataType match {
    case ArrayType(elementType, _) =>
      ElementType.of(elementType).map(FeatureColumn(field.name, field.dataType, _, isArray = true))
    case scalar =>
      ElementType.of(scalar).map(FeatureColumn(field.name, field.dataType, _, isArray = false))
  }

  private def advice(dataType: DataType): String = dataType match {
    case DoubleType =>
      "it has no double; cast to float (spark_dl.prepare does this)"
    case ArrayType(DoubleType, _) =>
      "it has no double; cast to array<float> (spark_dl.prepare does this)"
    case _: DecimalType =>
      "it has no decimal; cast to bigint or float, or to string to keep every digit"
    case ArrayType(_: ArrayType, _) =>
      "arrays nest one level only; flatten the column"
    case _: StructType =>
      "it has no struct; select the struct's fields as columns"
    case _: MapType =>
      "it has no map; select the map's values, or its keys and its values, as columns"
    case _: UserDefinedType[_] =>
      "it has no user-defined types; turn a vector into an array with vector_to_array(column, 'float32')"
    case _ =>
      "it holds boolean, tinyint, smallint, int, bigint, date, timestamp, float, string, binary and arrays of these; " +
        "cast to one of them"
  }
}
