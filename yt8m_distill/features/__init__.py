"""From a video file to the frame features of YouTube-8M."""
