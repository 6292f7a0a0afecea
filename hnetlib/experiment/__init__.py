"""The benchmark around the method: settings, data, streams, training, runs on disk, logs."""
