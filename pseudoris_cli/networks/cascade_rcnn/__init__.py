"""Cascade Mask R-CNN with a ResNet-FPN (Cai and Vasconcelos, 2018; He et al., 2017; Lin et al., 2017) for inference.

The numbers, their order and the tensor names are those of detectron2 0.6 with CutLER's configuration, so that CutLER's
checkpoints load and its results come out. Boxes are float32 [N, 4] as x0, y0, x1, y1 in pixels of the resized image
unless a name says otherwise; image sizes are (height, width).
"""
