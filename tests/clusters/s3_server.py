"""An S3-compatible server on a free port, until stdin ends; prints its URL once it has a bucket."""

import sys

import boto3
from moto.server import ThreadedMotoServer

if __name__ == "__main__":
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=sys.argv[1])
    print(url, flush=True)
    sys.stdin.read()
    server.stop()
