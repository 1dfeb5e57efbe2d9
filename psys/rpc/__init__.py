"""Everything psys says over gRPC: the only package that imports grpc or generated code."""
