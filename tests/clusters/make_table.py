"""Write the table of the guides: small images of digits. ``spark-submit make_table.py URI``."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

if __name__ == "__main__":
    spark = SparkSession.builder.getOrCreate()
    pixel = sf.expr("transform(sequence(0, 63), i -> cast((id * 7 + i * (id % 10)) % 17 as float))")
    rows = spark.range(400).select("id", pixel.alias("pixels"), (sf.col("id") % 10).alias("digit"))
    rows.write.format("delta").mode("overwrite").save(sys.argv[1])
    spark.stop()
