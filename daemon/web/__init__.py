"""The service over HTTP: which calibrations belong to a frame, and the files themselves. It only reads."""
